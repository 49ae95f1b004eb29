"""The one trainer and what it stands on.

trainer      Trainer: several models, one step; resumes by itself
checkpoint   whole or not there; safetensors and JSON
averaging    running means of weights
chunking     whole batches encoded a few rows at a time
conflict     losses that pull the same weights apart, and PCGrad
schedules    learning-rate factors of the step
distributed  whole batches for losses that compare pictures
run_folder   the resolved recipe, versions, metrics
memory       the allocator's habits on the CPU
settings     what every method's recipe shares
"""
