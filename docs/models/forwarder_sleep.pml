/* How the forwarder falls asleep and is woken: no packet is left while it sleeps, and no completion.
 *
 * The code: Forwarder::sleep_until_woken (daemon/forwarder.cpp), wake_forwarder
 * (libeclip/context.cpp), GpuWatch::wait (daemon/gpu_watch.cpp). Two workers, each of which writes
 * PACKETS packets and says after each that it must be noticed; and a GPU that completes one packet
 * of before, and interrupts the host if the packet's signal carries the event then. Stores go through a buffer for each side, as on x86: another process
 * sees them only after a flush, which takes place at any time and before a fence ends.
 *
 *   spin -a forwarder_sleep.pml && gcc -O2 -o pan pan.c && ./pan -m100000
 *
 * Broken on purpose, it must fail:
 *   -DNO_LAST_LOOK     the forwarder does not look again after it has announced its sleep
 *   -DNO_WORKER_FENCE  the worker looks at the announcement before its packet is visible
 *   -DNO_EXPECTATION   the forwarder reads the wake words after its last look, not before
 *   -DNO_EVENT         it does not let the signal carry the event
 *   -DLATE_EVENT       it does so after its last look
 */
#define WORKERS 2
#define PACKETS 2

byte written[WORKERS];  /* LeaseRing::written, as others see it */
byte buffered[WORKERS]; /* as the worker's own store buffer has it */
byte taken[WORKERS];
byte wake[WORKERS];     /* WorkerRequest::wake, a futex word; changed by a locked operation */
bool asleep;            /* Board::forwarder_asleep */
bool sleeping;          /* the forwarder is inside the futex call */
byte finished;

bool complete;          /* SignalSlot::value is 0 */
bool carries;           /* SignalSlot::event_mailbox_ptr is not 0 */
bool seen;              /* the forwarder has seen the completion */
byte raised;            /* CompletionInterrupt::raised, a futex word */

#define anything_new \
  (written[0] != taken[0] || written[1] != taken[1] || (complete && !seen))

/* The worker's store buffer drains when the processor likes. */
proctype Buffer(byte w) {
end:
  do
  :: atomic { buffered[w] != written[w] -> written[w] = buffered[w] }
  od
}

proctype Worker(byte w) {
  byte i;
  for (i : 1 .. PACKETS) {
    buffered[w] = buffered[w] + 1;
#ifndef NO_WORKER_FENCE
    written[w] == buffered[w]; /* fence: waits for its own store buffer */
#endif
    if
    :: asleep ->
       atomic { wake[w] = wake[w] + 1; written[w] = buffered[w] } /* a locked operation flushes */
       sleeping = false  /* FUTEX_WAKE: wakes whoever sleeps now */
    :: !asleep
    fi
  }
  finished++
}

proctype Gpu() {
  complete = true;
  if
  :: carries -> raised++; sleeping = false /* the watch's FUTEX_WAKE */
  :: !carries
  fi;
  finished++
}

proctype Forwarder() {
  byte expected[WORKERS];
  byte expected_raised;
end:
  do
  :: atomic { anything_new ->
       if
       :: written[0] != taken[0] -> taken[0] = taken[0] + 1
       :: written[1] != taken[1] -> taken[1] = taken[1] + 1
       :: complete && !seen -> seen = true
       fi }
  :: !anything_new ->
#ifndef NO_EXPECTATION
     expected[0] = wake[0];
     expected[1] = wake[1];
     expected_raised = raised;
#endif
#if !defined(NO_EVENT) && !defined(LATE_EVENT)
     carries = true;
#endif
     asleep = true; /* with a fence */
#ifdef NO_LAST_LOOK
     true;
#else
     if
     :: anything_new -> goto awake
     :: !anything_new
     fi;
#endif
#ifdef NO_EXPECTATION
     expected[0] = wake[0];
     expected[1] = wake[1];
     expected_raised = raised;
#endif
#ifdef LATE_EVENT
     carries = true;
#endif
     /* The kernel compares the words and falls asleep in one step. */
     atomic {
       if
       :: expected[0] == wake[0] && expected[1] == wake[1] && expected_raised == raised ->
          sleeping = true
       :: else
       fi
     }
end_asleep:
     !sleeping;
awake:
     asleep = false
  od
}

init {
  atomic { run Buffer(0); run Buffer(1); run Worker(0); run Worker(1); run Gpu();
           run Forwarder() }
  /* When all is written and visible and nothing moves any more, nothing is left. */
  atomic {
    timeout ->
      assert(finished == WORKERS + 1);
      assert(seen);
      assert(taken[0] == PACKETS && taken[1] == PACKETS)
  }
}
