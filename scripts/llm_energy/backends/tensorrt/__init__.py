"""TensorRT-LLM: NVIDIA's LLM API on its PyTorch flow."""
