"""Say what can be measured on this host, how well, and what would mend the rest."""
