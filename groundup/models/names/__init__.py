"""Tables that translate settings and tensor names between our models and other programs."""
