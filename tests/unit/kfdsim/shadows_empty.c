/* A library that has nothing to do with kfdsim. */
int shadows_empty(void);
int shadows_empty(void) {
  return 0;
}
