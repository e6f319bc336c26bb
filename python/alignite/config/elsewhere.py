"""Names that users of TRL, transformers and PEFT type, and what says the same here.

A test asks those libraries for all of their fields: each one is an option of ours, or stands in one of these tables.
"""

from __future__ import annotations

# Their name, and ours; after a colon the value, or what is different.
OURS = {
    "activation_checkpointing": "gradient_checkpointing",
    "activation_offloading": "gradient_checkpointing: activations are computed again, not moved to the CPU",
    "auto_find_batch_size": "micro_batch_tokens: a batch that does not fit is split, with the same result",
    "base_model": "model",
    "base_model_name_or_path": "model",
    "batch_size": "per_device_train_batch_size",
    "bf16": "dtype: bfloat16 for true, float32 for false",
    "bf16_full_eval": "dtype: evaluation runs in the dtype of training",
    "cutoff_len": "max_length",
    "data_seed": "seed: one seed for the order, the adapter's start and dropout",
    "dataloader_num_workers": "num_threads: batches come from a mapped file, so there are threads and no workers",
    "dataset": "data",
    "dataset_config": "data: ORG/NAME:CONFIG:SPLIT",
    "dataset_name": "data: a file, a glob, or ORG/NAME:SPLIT",
    "dataset_num_proc": "num_threads",
    "dataset_test_split": "eval_data: ORG/NAME:SPLIT",
    "dataset_text_field": "completion_column: with prompt_column, and apply_chat_template: false",
    "dataset_train_split": "data: ORG/NAME:SPLIT",
    "do_eval": "eval_data: evaluation runs when it is given",
    "do_sample": "temperature: above 0 samples",
    "epochs": "num_train_epochs",
    "eval_delay": "eval_steps: the first evaluation is after that many updates",
    "eval_on_start": "eval_steps: the first evaluation is after that many updates",
    "eval_packing": "packing: it holds for training and held-out data",
    "eval_strategy": "eval_steps: updates between evaluations; 0 means only at the end",
    "evaluation_strategy": "eval_steps: updates between evaluations; 0 means only at the end",
    "fp16": "dtype: bfloat16 or float32; float16 is not trained in",
    "fp16_full_eval": "dtype: evaluation runs in the dtype of training",
    "logging_first_step": "logging_steps: 1 shows each update",
    "logging_strategy": "logging_steps",
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "max_grad_norm_clip": "max_grad_norm",
    "max_new_tokens": "max_completion_length",
    "max_seq_len": "max_length",
    "max_seq_length": "max_length",
    "micro_batch_size": "per_device_train_batch_size: memory is bounded by micro_batch_tokens",
    "model_init_kwargs": "dtype: the rest is read from the model folder",
    "model_max_length": "max_length",
    "model_name_or_path": "model: a folder, ORG/NAME or ORG/NAME@REVISION",
    "model_revision": "model: ORG/NAME@REVISION",
    "no_cuda": "device: cpu",
    "num_epochs": "num_train_epochs",
    "overwrite_output_dir": "output_dir: choose another one; a run is never overwritten",
    "packing_strategy": "packing: bfd or none",
    "r": "lora_r",
    "report_to": "trackers: a list; none is the default",
    "response_length": "max_completion_length",
    "resume_from_checkpoint": "resume: auto (the default) goes on with the newest whole checkpoint",
    "revision": "model: ORG/NAME@REVISION",
    "save_strategy": "save_steps: for `best`, metric_for_best_model keeps the best one besides",
    "shuffle_dataset": "shuffle: on by default, another order each epoch",
    "target_modules": "lora_target_modules",
    "torch_dtype": "dtype",
    "train_file": "data",
    "train_sampling_strategy": "shuffle: true is `random`, false is `sequential`",
    "group_by_length": "shuffle: nothing is padded, so lengths may mix",
    "truncation_mode": "max_length: rows are cut after the last whole turn that fits, and counted",
    "use_cpu": "device: cpu",
    "validation_file": "eval_data",
}

# Why a name has no counterpart, and the names (parted by spaces).
NOTHING = {
    "batches are never padded": "padding_free pad_to_multiple_of pad_token length_column_name",
    "prompts are never scored": "completion_only_loss",
    "only assistants are scored": "assistant_only_loss",
    "the loss is the mean cross-entropy of the scored tokens": "label_smoothing_factor loss_type router_aux_loss_coef",
    "losses are divided by the scored tokens of all ranks": "average_tokens_across_devices",
    "the vocabulary head runs at scored positions only, whatever the kernel": "use_liger_kernel liger_kernel_config",
    "each segment attends to itself through alignite's own attention": "attn_implementation",
    "how a turn ends is read from the model's tokenizer and generation_config.json": "eos_token",
    "the model folder's chat_template.jinja is used; put another one there": "chat_template_path",
    "files are read as a stream, once, into OUTPUT_DIR/prepared": "dataset_streaming dataset_kwargs",
    "columns that are not named are not looked at": "remove_unused_columns label_names",
    "code from a model's repository is never run": "trust_remote_code",
    "the optimizer is AdamW with adam_beta1, adam_beta2 and adam_epsilon": "optim optim_args optim_target_modules",
    "schedules have warmup_steps or warmup_ratio and no other knob": "lr_scheduler_kwargs",
    "noise in embeddings is not in this version": "neftune_noise_alpha",
    "layers are recomputed whole, without re-entering autograd": "activation_checkpointing_kwargs "
    "gradient_checkpointing_kwargs",
    "the cache is off in training and on in generation": "use_cache",
    "models are not compiled; products go to the fastest library for this processor": "torch_compile "
    "torch_compile_backend torch_compile_mode",
    "torch's own settings hold": "tf32 torch_empty_cache_steps skip_memory_metrics debug",
    "all random numbers come from seed; a run that is resumed gives the same bits": "full_determinism",
    "batches come from a mapped file, without worker processes": "dataloader_in_order "
    "dataloader_multiprocessing_context dataloader_persistent_workers dataloader_pin_memory dataloader_prefetch_factor",
    "the last, shorter update of an epoch is divided by what it holds": "dataloader_drop_last",
    "evaluation keeps sums, never logits": "batch_eval_metrics eval_accumulation_steps eval_do_concat_batches "
    "eval_use_gather_object include_for_metrics prediction_loss_only",
    "a loss that is not finite ends the run, and nothing is applied": "logging_nan_inf_filter",
    "num_tokens is always logged": "include_num_input_tokens_seen include_tokens_per_second",
    "messages and progress go to stderr, metrics to metrics.jsonl, on the first rank": "disable_tqdm log_level "
    "log_level_replica log_on_each_node logging_dir",
    "trackers run on this machine; trackio's Spaces are not used": "trackio_bucket_id trackio_space_id "
    "trackio_static_space_id",
    "`alignite sft` trains": "do_train",
    "`alignite generate` answers prompts": "do_predict",
    "SIGTERM and Ctrl-C always save a checkpoint": "enable_jit_checkpoint",
    "a checkpoint can always be resumed; save_total_limit bounds their number": "save_only_model save_safetensors",
    "resuming goes to its place in the data at once": "ignore_data_skip",
    "checkpoints hold all that a run needs": "restore_callback_states_from_checkpoint save_on_each_node",
    "alignite uploads nothing; `hf upload` does": "push_to_hub hub_always_push hub_model_id hub_private_repo "
    "hub_revision hub_strategy hub_token",
    "`torchrun` starts the ranks, and the loop adds their gradients itself": "accelerator_config ddp_backend "
    "ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph ddp_timeout local_rank "
    "ignore_bias_buffers",
    "each rank holds the whole model in this version": "deepspeed fsdp fsdp_config parallelism_config megatron_config "
    "megatron_core",
    "quantized bases are not in this version": "load_in_4bit load_in_8bit bnb_4bit_quant_type bnb_4bit_quant_storage "
    "use_bnb_nested_quant loftq_config use_qalora qalora_group_size quantization_config",
    "adapters are plain LoRA of linears in this version": "alora_invocation_tokens arrow_config corda_config "
    "eva_config kasa_config lora_bias lora_ga_config monteclora_config use_bdlora use_dora velora_config "
    "layer_replication runtime_config bias",
    "only linears are adapted; everything else stays frozen": "modules_to_save lora_modules_to_save target_parameters "
    "lora_target_parameters trainable_token_indices ensure_weight_tying",
    "the command line takes one rank and one alpha; in Python peft_config=LoraConfig(...) takes it": "alpha_pattern "
    "rank_pattern init_lora_weights exclude_modules layers_pattern layers_to_transform",
    "models are causal LMs": "lora_task_type task_type",
    "it is told from the model": "fan_in_fan_out",
    "PEFT keeps it for itself": "auto_mapping inference_mode peft_type peft_version",
}

ELSEWHERE = OURS | {name: f"nothing: {why}" for why, names in NOTHING.items() for name in names.split()}
