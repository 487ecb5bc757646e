"""The price stream's protocol, without any I/O."""
