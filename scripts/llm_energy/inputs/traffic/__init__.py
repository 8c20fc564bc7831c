"""When requests arrive: at random rates, in bursts, or as a real service saw them."""
