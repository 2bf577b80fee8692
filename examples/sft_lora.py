"""LoRA fine-tuning on the best tenth of an instruction set: only the line with `scar_args` is new.

python examples/sft_lora.py MODEL DATA.jsonl OUTPUT, or under `accelerate launch`.
"""

import sys

import torch
from datasets import load_dataset
from peft import LoraConfig
from scar_hf.trainer_callbacks import ScarArguments, ScarSFTTrainer
from trl import SFTConfig

model, data, output = sys.argv[1:]

trainer = ScarSFTTrainer(
    model=model,
    args=SFTConfig(
        output_dir=output,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        num_train_epochs=3,
        learning_rate=2e-4,
        max_length=512,
        logging_steps=5,
        use_cpu=not torch.cuda.is_available(),
    ),
    train_dataset=load_dataset("json", data_files=data, split="train"),
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    scar_args=ScarArguments(scar_k=0.1),
)
trainer.train()
trainer.save_model()
