"""The content of the faces set: faces, sentences, voices."""
