"""Where steps run: threads of this machine now, another engine later."""
