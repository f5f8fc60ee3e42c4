/* A lease ends while its worker writes a packet: both sides agree on what became of each packet.
 *
 * The code: Forwarder::end_lease and drop_packets (daemon/forwarder.cpp), push
 * (libeclip/submit.cpp). The worker writes packets until it is refused; for each that it was not
 * refused, somebody may wait, so it must have been forwarded or cancelled; one that was refused
 * must never have been forwarded. Stores go through a buffer for each side, as on x86.
 *
 *   spin -a lease_end.pml && gcc -O2 -o pan pan.c && ./pan -m100000
 *
 * Broken on purpose, it must fail:
 *   -DNO_LAST_LOOK     the forwarder does not look at the ring after it has ended the lease
 *   -DNO_WORKER_FENCE  the worker looks at the state before its packet is visible
 *   -DNO_DAEMON_FENCE  the forwarder looks at the ring before the state is visible
 *   -DNO_ACCEPTED      the worker does not ask whether its packet was taken
 */
#define PACKETS 2

byte written, buffered;       /* LeaseRing::written: visible, and in the worker's store buffer */
bool ended, buffered_ended;   /* LeaseSlot::state is `ended`: likewise, in the forwarder's */
byte accepted;                /* LeaseSlot::accepted; stored before the state, in order */
byte taken;                   /* forwarded or dropped */
byte forwarded, cancelled;    /* packets 1..forwarded ran, the next up to `cancelled` did not */
byte submitted;               /* packets for which the worker's call returned 0 */
bool refused;
bool worker_done, forwarder_done;

proctype Buffers() {
end:
  do
  :: atomic { buffered != written -> written = buffered }
  :: atomic { buffered_ended && !ended -> ended = true }
  od
}

proctype Worker() {
  byte i;
  for (i : 1 .. PACKETS) {
    if
    :: ended -> goto done /* refused before anything was written */
    :: !ended
    fi;
    buffered = i;
#ifndef NO_WORKER_FENCE
    written == buffered;
#endif
    if
#ifdef NO_ACCEPTED
    :: ended ->
#else
    :: ended && accepted < i ->
#endif
       refused = true;
       goto done
    :: else -> submitted = i
    fi
  }
done:
  worker_done = true
}

proctype Forwarder() {
  do
  :: atomic { taken < written -> taken++; forwarded = taken }
  :: break /* the grace period is over */
  od;
  accepted = taken;
  buffered_ended = true;
#ifndef NO_DAEMON_FENCE
  ended;
#endif
#ifndef NO_LAST_LOOK
  do
  :: atomic { taken < written -> taken++; cancelled = taken }
  :: taken >= written -> break
  od;
#endif
  forwarder_done = true
}

init {
  atomic { run Buffers(); run Worker(); run Forwarder() }
  atomic {
    timeout ->
      assert(worker_done && forwarder_done);
      /* Who was told that a packet is on its way learns how it ended. */
      assert(submitted <= forwarded || submitted <= cancelled);
      /* Who was told that it is not can do the work elsewhere: it is not done twice. */
      assert(!refused || forwarded <= submitted)
  }
}
