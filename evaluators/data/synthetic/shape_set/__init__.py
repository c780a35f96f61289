"""The shapes set: pictures of shapes and statements about them."""
