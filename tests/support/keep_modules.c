// Preloaded where leaks are looked for: what libraries leave behind is known by their names only while they are loaded.
int dlclose(void *module) {
  (void)module;
  return 0;
}
