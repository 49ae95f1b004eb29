"""Losses: one file each, pure functions on tensors.

variance_covariance        features of one batch spread out and uncorrelated (RegFT, VICReg)
image_text_contrastive     pictures and texts pulled together (CLIP, FLYP)
soft_target_cross_entropy  a classifier kept near a teacher (He et al.)
denoising                  a diffusion model's prediction, weighted by noise level (min-SNR-γ)
"""

from gen2real.losses.denoising import denoising
from gen2real.losses.image_text_contrastive import image_text_contrastive
from gen2real.losses.soft_targets import soft_target_cross_entropy
from gen2real.losses.variance_covariance import VarianceCovariance, variance_covariance

__all__ = [
    "VarianceCovariance",
    "denoising",
    "image_text_contrastive",
    "soft_target_cross_entropy",
    "variance_covariance",
]
