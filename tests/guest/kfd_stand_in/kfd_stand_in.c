// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* A stand-in for amdgpu's /dev/kfd, for tests in a guest that has no GPU: there the real driver can
 * create no queue. This one creates and masks queues that do nothing.
 *
 * What BPF programs attach to and look into is as in the real driver of Linux 6.1: the names and
 * arguments of functions, the names of structures and fields, the answers, the opener check, and
 * when queues die: by DESTROY_QUEUE, or in a kernel worker once the process's memory and its last
 * open file of the device are both gone. Every non-zero gpu_id is a GPU.
 *
 * /sys/kernel/debug/kfd_stand_in/ tells the truth that tests compare a guard's claims with:
 *   queues, masked, processes   how many there are now
 *   masked_max                  the most masked queues at any time; writing 0 starts over with
 * now's
 */
#include <linux/bitmap.h>
#include <linux/capability.h>
#include <linux/cdev.h>
#include <linux/compat.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/hashtable.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/ptrace.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/workqueue.h>

#include <uapi/linux/kfd_ioctl.h>

/* Tests attach to these functions: each exists once, under its own name, and is really called. */
#define ATTACHABLE noinline __attribute__((noipa))

enum {
  max_queues = 1024,            /* of a process */
  max_cu_mask_bits = 1024,      /* more are dropped */
  percentage_of_late_queue = 13 /* queues created with it are destroyed with -ETIME */
};

struct kfd_process;

/* A GPU. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define kfd_node kfd_dev
#endif
struct kfd_node {
  unsigned int id;
};

enum kfd_queue_type {
  KFD_QUEUE_TYPE_COMPUTE,
  KFD_QUEUE_TYPE_SDMA,
};

struct queue_properties {
  enum kfd_queue_type type;
  unsigned int queue_id;
  u32 queue_percent;
};

struct queue {
  struct list_head list;
  struct queue_properties properties;
  struct kfd_process* process;
  struct kfd_node* device;
  struct kfd_node gpu; /* device points to it: every GPU is there */
  bool is_masked;
};

enum mqd_update_flag { UPDATE_FLAG_CU_MASK = 0 };

struct mqd_update_info {
  union {
    struct {
      u32 count; /* bits */
      u32* ptr;
    } cu_mask;
  };
  enum mqd_update_flag update_flag;
};

struct process_queue_manager {
  struct kfd_process* process;
  struct list_head queues;
  unsigned long* queue_slot_bitmap;
};

struct kfd_process {
  struct hlist_node kfd_processes;
  void* mm; /* only its address counts; NULL once the memory is gone */
  struct kref ref;
  struct work_struct release_work;
  struct mutex mutex; /* of pqm */
  struct task_struct* lead_thread;
  struct mmu_notifier mmu_notifier;
  struct process_queue_manager pqm;
};

static atomic_t queues = ATOMIC_INIT(0);
static atomic_t processes = ATOMIC_INIT(0);
static atomic_t masked = ATOMIC_INIT(0);
static atomic_t masked_max = ATOMIC_INIT(0);

static DEFINE_HASHTABLE(kfd_processes_table, 5);
static DEFINE_MUTEX(kfd_processes_mutex); /* of the table, and of creating and ending processes */
static struct workqueue_struct* kfd_process_wq;

int pqm_create_queue(struct process_queue_manager* pqm, struct kfd_node* dev,
                     struct queue_properties* properties, unsigned int* qid);
int pqm_destroy_queue(struct process_queue_manager* pqm, unsigned int qid);
int pqm_update_mqd(struct process_queue_manager* pqm, unsigned int qid,
                   struct mqd_update_info* minfo);
void pqm_uninit(struct process_queue_manager* pqm);
int kfd_procfs_add_queue(struct queue* q);

/* --- queues of a process ------------------------------------------------------------------------
 */

static struct queue* get_queue_by_qid(struct process_queue_manager* pqm, unsigned int qid) {
  struct queue* q;

  list_for_each_entry(q, &pqm->queues, list) {
    if (q->properties.queue_id == qid) {
      return q;
    }
  }
  return NULL;
}

static void mark_masked(struct queue* q) {
  int now, most;

  if (q->is_masked) {
    return;
  }
  q->is_masked = true;
  now = atomic_inc_return(&masked);
  most = atomic_read(&masked_max);
  while (now > most && !atomic_try_cmpxchg(&masked_max, &most, now)) {
  }
}

static void free_queue(struct queue* q) {
  if (q->is_masked) {
    atomic_dec(&masked);
  }
  atomic_dec(&queues);
  list_del(&q->list);
  kfree(q);
}

/* The real one makes the queue's entry in sysfs. */
ATTACHABLE int kfd_procfs_add_queue(struct queue* q) {
  return 0;
}

/* The real one has arguments that differ from kernel to kernel, too many for 6.1 to attach to. */
ATTACHABLE int pqm_create_queue(struct process_queue_manager* pqm, struct kfd_node* dev,
                                struct queue_properties* properties, unsigned int* qid) {
  struct queue* q = kzalloc(sizeof(*q), GFP_KERNEL);
  unsigned long slot = find_first_zero_bit(pqm->queue_slot_bitmap, max_queues);

  if (!q || slot >= max_queues) {
    kfree(q);
    return -ENOMEM;
  }
  set_bit(slot, pqm->queue_slot_bitmap);
  q->properties = *properties;
  q->properties.queue_id = slot;
  q->process = pqm->process;
  q->gpu = *dev;
  q->device = &q->gpu;
  list_add(&q->list, &pqm->queues);
  atomic_inc(&queues);
  *qid = slot;
  kfd_procfs_add_queue(q);
  return 0;
}

ATTACHABLE int pqm_destroy_queue(struct process_queue_manager* pqm, unsigned int qid) {
  struct queue* q = get_queue_by_qid(pqm, qid);
  bool is_late;

  if (!q) {
    return -EINVAL;
  }
  is_late = q->properties.queue_percent == percentage_of_late_queue;
  free_queue(q);
  clear_bit(qid, pqm->queue_slot_bitmap);
  return is_late ? -ETIME : 0;
}

ATTACHABLE int pqm_update_mqd(struct process_queue_manager* pqm, unsigned int qid,
                              struct mqd_update_info* minfo) {
  struct queue* q = get_queue_by_qid(pqm, qid);

  if (!q) {
    return -EFAULT;
  }
  if (minfo->update_flag == UPDATE_FLAG_CU_MASK && minfo->cu_mask.ptr &&
      q->properties.type == KFD_QUEUE_TYPE_COMPUTE) {
    mark_masked(q);
  }
  return 0;
}

ATTACHABLE void pqm_uninit(struct process_queue_manager* pqm) {
  struct queue *q, *next;

  list_for_each_entry_safe(q, next, &pqm->queues, list) {
    free_queue(q);
  }
  bitmap_free(pqm->queue_slot_bitmap);
  pqm->queue_slot_bitmap = NULL;
}

/* --- processes ----------------------------------------------------------------------------------
 */

static void kfd_process_wq_release(struct work_struct* work) {
  struct kfd_process* p = container_of(work, struct kfd_process, release_work);

  pqm_uninit(&p->pqm);
  put_task_struct(p->lead_thread);
  mutex_destroy(&p->mutex);
  kfree(p);
  atomic_dec(&processes);
  module_put(THIS_MODULE);
}

static void kfd_process_ref_release(struct kref* ref) {
  struct kfd_process* p = container_of(ref, struct kfd_process, ref);

  INIT_WORK(&p->release_work, kfd_process_wq_release);
  queue_work(kfd_process_wq, &p->release_work);
}

static void kfd_process_notifier_release(struct mmu_notifier* mn, struct mm_struct* mm) {
  struct kfd_process* p = container_of(mn, struct kfd_process, mmu_notifier);

  mutex_lock(&kfd_processes_mutex);
  hash_del(&p->kfd_processes);
  p->mm = NULL;
  mutex_unlock(&kfd_processes_mutex);
  mmu_notifier_put(mn);
}

static struct mmu_notifier* kfd_process_alloc_notifier(struct mm_struct* mm) {
  struct kfd_process* p = kzalloc(sizeof(*p), GFP_KERNEL);

  if (!p) {
    return ERR_PTR(-ENOMEM);
  }
  p->pqm.queue_slot_bitmap = bitmap_zalloc(max_queues, GFP_KERNEL);
  if (!p->pqm.queue_slot_bitmap) {
    kfree(p);
    return ERR_PTR(-ENOMEM);
  }
  INIT_LIST_HEAD(&p->pqm.queues);
  p->pqm.process = p;
  kref_init(&p->ref); /* the memory's reference */
  mutex_init(&p->mutex);
  p->mm = mm;
  p->lead_thread = current->group_leader;
  get_task_struct(p->lead_thread);
  __module_get(THIS_MODULE); /* open files hold the module too, but may be closed before */
  atomic_inc(&processes);
  return &p->mmu_notifier;
}

static void kfd_process_free_notifier(struct mmu_notifier* mn) {
  struct kfd_process* p = container_of(mn, struct kfd_process, mmu_notifier);

  kref_put(&p->ref, kfd_process_ref_release);
}

static const struct mmu_notifier_ops kfd_process_mmu_notifier_ops = {
    .release = kfd_process_notifier_release,
    .alloc_notifier = kfd_process_alloc_notifier,
    .free_notifier = kfd_process_free_notifier,
};

/* The caller's process, the same for all its opens, with a reference for the file. */
static struct kfd_process* kfd_create_process(void) {
  struct kfd_process* p;
  struct mmu_notifier* mn;

  if (!current->mm || current->group_leader->mm != current->mm) {
    return ERR_PTR(-EINVAL);
  }
  mutex_lock(&kfd_processes_mutex);
  hash_for_each_possible(kfd_processes_table, p, kfd_processes, (uintptr_t)current->mm) {
    if (p->mm == current->mm) {
      kref_get(&p->ref);
      goto out;
    }
  }
  mn = mmu_notifier_get(&kfd_process_mmu_notifier_ops, current->mm);
  if (IS_ERR(mn)) {
    p = ERR_CAST(mn);
    goto out;
  }
  p = container_of(mn, struct kfd_process, mmu_notifier);
  kref_get(&p->ref);
  hash_add(kfd_processes_table, &p->kfd_processes, (uintptr_t)current->mm);
out:
  mutex_unlock(&kfd_processes_mutex);
  return p;
}

/* --- commands -----------------------------------------------------------------------------------
 */

ATTACHABLE static int kfd_ioctl_get_version(struct file* filep, struct kfd_process* p, void* data) {
  struct kfd_ioctl_get_version_args* args = data;

  args->major_version = KFD_IOCTL_MAJOR_VERSION;
  args->minor_version = KFD_IOCTL_MINOR_VERSION;
  return 0;
}

ATTACHABLE static int kfd_ioctl_create_queue(struct file* filep, struct kfd_process* p,
                                             void* data) {
  struct kfd_ioctl_create_queue_args* args = data;
  struct queue_properties properties = {.queue_percent = args->queue_percentage};
  struct kfd_node gpu = {.id = args->gpu_id};
  unsigned int qid;
  int err;

  if (args->queue_percentage > KFD_MAX_QUEUE_PERCENTAGE ||
      args->queue_priority > KFD_MAX_QUEUE_PRIORITY || args->gpu_id == 0) {
    return -EINVAL;
  }
  properties.type =
      args->queue_type == KFD_IOC_QUEUE_TYPE_SDMA ? KFD_QUEUE_TYPE_SDMA : KFD_QUEUE_TYPE_COMPUTE;
  mutex_lock(&p->mutex);
  err = pqm_create_queue(&p->pqm, &gpu, &properties, &qid);
  mutex_unlock(&p->mutex);
  if (!err) {
    args->queue_id = qid;
  }
  return err;
}

ATTACHABLE static int kfd_ioctl_destroy_queue(struct file* filp, struct kfd_process* p,
                                              void* data) {
  struct kfd_ioctl_destroy_queue_args* args = data;
  int err;

  mutex_lock(&p->mutex);
  err = pqm_destroy_queue(&p->pqm, args->queue_id);
  mutex_unlock(&p->mutex);
  return err;
}

ATTACHABLE static int kfd_ioctl_set_cu_mask(struct file* filp, struct kfd_process* p, void* data) {
  struct kfd_ioctl_set_cu_mask_args* args = data;
  struct mqd_update_info minfo = {.update_flag = UPDATE_FLAG_CU_MASK};
  int err;

  if (args->num_cu_mask == 0 || args->num_cu_mask % 32 != 0) {
    return -EINVAL;
  }
  minfo.cu_mask.count = min_t(u32, args->num_cu_mask, max_cu_mask_bits);
  minfo.cu_mask.ptr = memdup_user(u64_to_user_ptr(args->cu_mask_ptr), minfo.cu_mask.count / 8);
  if (IS_ERR(minfo.cu_mask.ptr)) {
    return PTR_ERR(minfo.cu_mask.ptr);
  }
  mutex_lock(&p->mutex);
  err = pqm_update_mqd(&p->pqm, args->queue_id, &minfo);
  mutex_unlock(&p->mutex);
  kfree(minfo.cu_mask.ptr);
  return err;
}

ATTACHABLE static int kfd_ioctl_criu(struct file* filep, struct kfd_process* p, void* data) {
  return -EINVAL;
}

struct command {
  int (*function)(struct file* filep, struct kfd_process* p, void* data);
  unsigned int cmd;
  bool for_checkpoint_restore;
};

#define COMMAND(ioc, handler, ...) \
  [_IOC_NR(ioc)] = {.function = (handler), .cmd = (ioc), ##__VA_ARGS__}

/* Through pointers, as in the real driver: what is attached to a handler is then really called. */
static const struct command commands[] = {
    COMMAND(AMDKFD_IOC_GET_VERSION, kfd_ioctl_get_version),
    COMMAND(AMDKFD_IOC_CREATE_QUEUE, kfd_ioctl_create_queue),
    COMMAND(AMDKFD_IOC_DESTROY_QUEUE, kfd_ioctl_destroy_queue),
    COMMAND(AMDKFD_IOC_SET_CU_MASK, kfd_ioctl_set_cu_mask),
    COMMAND(AMDKFD_IOC_CRIU_OP, kfd_ioctl_criu, .for_checkpoint_restore = true),
};

/* --- the device ---------------------------------------------------------------------------------
 */

ATTACHABLE static int kfd_open(struct inode* inode, struct file* filep) {
  struct kfd_process* p;

  if (iminor(inode) != 0) {
    return -ENODEV;
  }
  if (in_compat_syscall()) {
    return -EPERM;
  }
  p = kfd_create_process();
  if (IS_ERR(p)) {
    return PTR_ERR(p);
  }
  filep->private_data = p;
  return 0;
}

ATTACHABLE static int kfd_release(struct inode* inode, struct file* filep) {
  struct kfd_process* p = filep->private_data;

  kref_put(&p->ref, kfd_process_ref_release);
  return 0;
}

/* By the number alone, whatever else the command says; it is copied by the size that the caller
 * says, and what the driver expects beyond that is zero.
 */
ATTACHABLE static long kfd_ioctl(struct file* filep, unsigned int cmd, unsigned long arg) {
  struct kfd_process* p = filep->private_data;
  unsigned int nr = _IOC_NR(cmd);
  unsigned int usize = _IOC_SIZE(cmd), asize;
  const struct command* command;
  bool traced = false;
  char* data;
  long err;

  if (nr < AMDKFD_COMMAND_START || nr >= AMDKFD_COMMAND_END || nr >= ARRAY_SIZE(commands)) {
    return -ENOTTY;
  }
  command = &commands[nr];

  if (command->for_checkpoint_restore) {
    rcu_read_lock();
    traced = ptrace_parent(p->lead_thread) == current;
    rcu_read_unlock();
  }
  if (p->lead_thread != current->group_leader && !traced) {
    return -EBADF;
  }
  if (!command->function) {
    return -EINVAL;
  }
  if (command->for_checkpoint_restore && !capable(CAP_CHECKPOINT_RESTORE) &&
      !capable(CAP_SYS_ADMIN)) {
    return -EACCES;
  }

  asize = max(usize, (unsigned int)_IOC_SIZE(command->cmd));
  data = kzalloc(asize, GFP_KERNEL);
  if (!data) {
    return -ENOMEM;
  }
  err = -EFAULT;
  if ((command->cmd & IOC_IN) && copy_from_user(data, (void __user*)arg, usize)) {
    goto out;
  }
  err = command->function(filep, p, data);
  if ((command->cmd & IOC_OUT) && copy_to_user((void __user*)arg, data, usize)) {
    err = -EFAULT;
  }
out:
  kfree(data);
  return err;
}

ATTACHABLE static int kfd_mmap(struct file* filp, struct vm_area_struct* vma) {
  return -EFAULT;
}

static const struct file_operations kfd_fops = {
    .owner = THIS_MODULE,
    .unlocked_ioctl = kfd_ioctl,
    .compat_ioctl = compat_ptr_ioctl,
    .open = kfd_open,
    .release = kfd_release,
    .mmap = kfd_mmap,
};

/* --- the module ---------------------------------------------------------------------------------
 */

static int masked_max_get(void* data, u64* value) {
  *value = atomic_read(&masked_max);
  return 0;
}

static int masked_max_set(void* data, u64 value) {
  if (value != 0) {
    return -EINVAL;
  }
  atomic_set(&masked_max, atomic_read(&masked));
  return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(masked_max_fops, masked_max_get, masked_max_set, "%llu\n");

static int major;
static struct class* kfd_class;
static struct dentry* truth;

static int __init kfd_stand_in_init(void) {
  struct device* device;

  kfd_process_wq = alloc_workqueue("kfd_process_wq", 0, 0);
  if (!kfd_process_wq) {
    return -ENOMEM;
  }
  major = register_chrdev(0, "kfd", &kfd_fops);
  if (major < 0) {
    destroy_workqueue(kfd_process_wq);
    return major;
  }
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
  kfd_class = class_create(THIS_MODULE, "kfd");
#else
  kfd_class = class_create("kfd");
#endif
  device = IS_ERR(kfd_class) ? ERR_CAST(kfd_class)
                             : device_create(kfd_class, NULL, MKDEV(major, 0), NULL, "kfd");
  if (IS_ERR(device)) {
    if (!IS_ERR(kfd_class)) {
      class_destroy(kfd_class);
    }
    unregister_chrdev(major, "kfd");
    destroy_workqueue(kfd_process_wq);
    return PTR_ERR(device);
  }
  truth = debugfs_create_dir("kfd_stand_in", NULL);
  debugfs_create_atomic_t("queues", 0444, truth, &queues);
  debugfs_create_atomic_t("processes", 0444, truth, &processes);
  debugfs_create_atomic_t("masked", 0444, truth, &masked);
  debugfs_create_file("masked_max", 0644, truth, NULL, &masked_max_fops);
  return 0;
}

static void __exit kfd_stand_in_exit(void) {
  debugfs_remove_recursive(truth);
  device_destroy(kfd_class, MKDEV(major, 0));
  class_destroy(kfd_class);
  unregister_chrdev(major, "kfd");
  mmu_notifier_synchronize();
  destroy_workqueue(kfd_process_wq); /* after the last worker, which may still be on its way out */
}

module_init(kfd_stand_in_init);
module_exit(kfd_stand_in_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Stand-in for amdgpu's /dev/kfd that has queues but no GPU; for tests only");
