/* The bit of a worker in the active set: when all threads are through, it is right.
 *
 * The code: Scheduler::add_work, show_activity, read_plan (libeclip/scheduler.cpp, scheduler_groups.cpp). Threads begin
 * and complete requests, others say how many wait, and the one that reads the plan learns the
 * worker's seat, all at once. Whoever has made the first request or ended the last shows it.
 *
 *   spin -a active_bit.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan -m100000
 *
 * Broken on purpose, it must fail:
 *   -DNO_SECOND_LOOK  a thread does not look again after it has stored
 *   -DONE_SIDED       it looks again only after it has cleared the bit, and only once
 *   -DNO_SEAT_LOOK    who learns the seat does not show what there is
 */
short work;
bit seat, bit_set;
byte through;

inline display() {
  do
  :: !seat -> break
  :: else ->
     shown = (work > 0);
     bit_set = shown;
#ifdef NO_SECOND_LOOK
     break
#elif defined(ONE_SIDED)
     if
     :: !shown && work > 0 -> bit_set = 1
     :: else
     fi;
     break
#else
     if
     :: shown == (work > 0) -> break
     :: else
     fi
#endif
  od
}

inline add(n) {
  atomic { was = (work > 0); work = work + n; shows = (work > 0) };
  if
  :: was != shows -> display()
  :: else
  fi
}

proctype Thread(short rounds; bit leaves_one) {
  bit was, shows, shown;
  short i;
  for (i : 1 .. rounds) {
    add(1);
    add(-1)
  }
  if
  :: leaves_one -> add(1)
  :: else
  fi;
  through++
}

proctype PlanReader() {
  bit shown;
  seat = 1;
#ifndef NO_SEAT_LOOK
  display();
#endif
  through++
}

init {
  bit one;
  atomic {
    if
    :: one = 0
    :: one = 1
    fi;
    run Thread(1, one); run Thread(2, 0); run Thread(1, 0); run PlanReader()
  }
  atomic {
    timeout ->
      assert(through == 4);
      assert(bit_set == (work > 0))
  }
}
