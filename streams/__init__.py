"""The shell: the only room with I/O, clocks, chance and asyncio."""
