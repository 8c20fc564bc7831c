"""PyTorch: Hugging Face Transformers, with Accelerate and bitsandbytes."""
