#include "tools/kfdsim/shadow_kernel.h"

const kfdsim_shadow_kernel kfdsim_shadow_kernels[] = {{"half", NULL}, {NULL, NULL}};
