"""The content of the rendered set: faces, sentences, voices."""
