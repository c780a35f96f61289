"""What networks read: preprocessed inputs and cached trunk features."""
