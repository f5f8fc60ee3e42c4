#include "tools/kfdsim/shadow_kernel.h"

/* Adds one to the word whose address is the kernel's argument. */
static int run_increment(const kfdsim_launch* launch) {
  const uint64_t* argument = launch->read(launch, launch->kernarg, sizeof *argument);
  if (argument == NULL) return 1;
  uint64_t* word = launch->write(launch, *argument, sizeof *word);
  if (word == NULL) return 1;
  ++*word;
  return 0;
}

/* A name that kfdsim knows itself. */
static int run_fill(const kfdsim_launch* launch) {
  (void)launch;
  return 0;
}

const kfdsim_shadow_kernel kfdsim_shadow_kernels[] = {
    {"increment", run_increment}, {"Fill", run_fill}, {NULL, NULL}};
