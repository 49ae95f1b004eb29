"""The one trainer and what it stands on.

trainer      Trainer: several models, one step; resumes by itself
checkpoint   whole or not there; safetensors and JSON
schedules    learning-rate factors of the step
distributed  whole batches for losses that compare pictures
run_folder   the resolved recipe, versions, metrics
memory       the allocator's habits on the CPU
settings     what every method's recipe shares
"""
