"""Convert a GGUF model to a folder with safetensors, which can be fine-tuned.

python examples/unpack_gguf.py FOLDER FILE.gguf OUTPUT
"""

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

folder, file, output = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype="bfloat16")
if hasattr(model.config, "quantization_config"):  # the weights are dequantised by now
    del model.config.quantization_config
    model.hf_quantizer = None
model.save_pretrained(output)
AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(output)
