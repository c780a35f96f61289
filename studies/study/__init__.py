"""One study from start to end: context, identity, search, final test."""
