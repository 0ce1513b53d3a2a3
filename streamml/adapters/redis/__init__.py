"""Features in Redis: the stored layout, the store that workers read, the loader that writes new versions."""
