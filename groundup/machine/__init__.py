"""What the machine decides: devices, threads, the allocator, and when a compiler is imported."""
