"""The support bundle: what somebody far away needs to see of this installation, and no secret."""

from include.offload.support.bundle import Packed, pack

__all__ = ["Packed", "pack"]
