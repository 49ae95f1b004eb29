"""Losses: one file each, pure functions on tensors.

variance_covariance        features of one batch spread out and uncorrelated (RegFT, VICReg)
image_text_contrastive     pictures and texts pulled together (CLIP, FLYP)
from_principal_components  features of a batch, coarsened (Long-CLIP)
soft_target_cross_entropy  a classifier kept near a teacher (He et al.)
modality_alignment         generated pictures pulled to their real partners (GMAIL)
distribution_alignment     generated features made like real ones as a whole, without partners (CORAL, MMD)
next_token                 a language model's cross-entropy, row by row (captions, answers)
denoising                  a diffusion model's prediction, weighted by noise level (min-SNR-γ)
reciprocal_consistency     what CLIP and a denoiser see in a picture, made to agree (UniDiff)
global_alignment_kernel    how alike two sequences are, over all ways to align them (Sugar's targets)
structure                  a batch's similarities made what the targets say (Sugar)
soft_dtw                   the cost of aligning two sequences, with a gradient
"""

from gen2real.losses.denoising import denoising
from gen2real.losses.distribution_alignment import distribution_alignment
from gen2real.losses.global_alignment_kernel import global_alignment_kernel
from gen2real.losses.image_text_contrastive import image_text_contrastive
from gen2real.losses.modality_alignment import modality_alignment
from gen2real.losses.next_token import next_token
from gen2real.losses.principal_components import from_principal_components
from gen2real.losses.reciprocal_consistency import reciprocal_consistency
from gen2real.losses.soft_dtw import soft_dtw
from gen2real.losses.soft_targets import soft_target_cross_entropy
from gen2real.losses.structure import structure
from gen2real.losses.variance_covariance import VarianceCovariance, variance_covariance

__all__ = [
    "VarianceCovariance",
    "denoising",
    "distribution_alignment",
    "from_principal_components",
    "global_alignment_kernel",
    "image_text_contrastive",
    "modality_alignment",
    "next_token",
    "reciprocal_consistency",
    "soft_dtw",
    "soft_target_cross_entropy",
    "structure",
    "variance_covariance",
]
