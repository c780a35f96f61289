"""Pictures, clips and sounds: decoded, checked, cached."""
