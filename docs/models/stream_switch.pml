/* How a worker changes its stream: order is kept, whatever the plan, the others and the GPU do.
 *
 * The code: Scheduler::start_group, choose, move_to, take_signal (libeclip/scheduler_groups.cpp),
 * PlanReader and write_plan (ipc/plan_table.cpp), Forwarder::forward (daemon/forwarder.cpp). Two
 * workers, each with a ring for each of two streams and two signals, send one kernel of before and
 * then groups of one kernel, at most two of them not complete. The stream is chosen where a group
 * begins: by a plan and an active set that are anything. What else there is of the plan is checked
 * beside: that the words that are read of its tables are of one epoch, while eclipd writes two more.
 *
 * The forwarder takes from each ring in order. A barrier waits in its ring until what it waits for
 * is in a queue. A signal is not armed while a barrier in a queue waits for its last use. A stream is
 * one worker's until a packet that ends a group, or until it has nothing that may go; not every
 * group ends with such a packet (one whose last kernel was marked for an event does not).
 *
 *   spin -a stream_switch.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan -m100000
 *
 * Broken on purpose, it must fail:
 *   -DNO_BARRIER     nothing on the new stream waits for the old one
 *   -DNO_MARK        a kernel without a signal is left without a barrier packet that has one
 *   -DNO_BARRIER_BIT packets overlap with earlier ones of their queue
 *   -DNO_HOLD        a barrier goes to its queue before what it waits for is in one
 *   -DNO_COUNT       a signal is armed though a barrier in a queue waits for its last use
 *   -DEARLY_REUSE    the worker uses a signal again before its last use has completed
 *   -DKEEP_TURN      a worker keeps the stream though its next packet may not go
 *   -DNO_RECHECK     the worker does not look at the epoch again after it has read the table
 */
/* Of each worker; with three for both there are 6 million states instead of 2. */
#ifdef KEEP_TURN
#define GROUPS(w) 3
#else
#define GROUPS(w) ((w) == 0 -> 3 : 2)
#endif
#define SIGNALS 2          /* of each worker */
#define NONE 255

mtype = { kernel, barrier };
/* One packet of each ring is in its Forward. Type, number of the kernel, signal and generation waited for, completion signal and generation,
 * ends a group */
chan ring[4] = [0] of { mtype, byte, byte, byte, byte, byte, bit };
/* type, worker, number, signal waited for, completion signal */
chan queue[2] = [1] of { mtype, byte, byte, byte, byte };

byte begun[4], forwarded[4]; /* generations; of signal worker * SIGNALS + number */
bit armed[4];                /* its value */
byte barriers[4];            /* in queues, that wait for it */
byte turn[2] = NONE;         /* whose stream it is */

byte ran[2];                 /* kernels of each worker that have ended */
bit busy[2];                 /* a kernel runs on the stream */
byte whose[2], signal_of[2];
byte finished;

#define complete(s, g) \
  ((g) == 0 || begun[s] > (g) || (forwarded[s] == (g) && !armed[s]))

/* The plan's tables, by parity of the epoch; `cuts` and `streams` tell of which plan they are. */
byte plan_epoch = 1;
byte table_epoch[2], cuts[2], streams[2];

proctype Planner() {
  byte e;
  for (e : 2 .. 3) {
    table_epoch[e % 2] = 0;
    cuts[e % 2] = e;
    streams[e % 2] = e;
    atomic { table_epoch[e % 2] = e; plan_epoch = e }
  }
  finished++
}

/* All that reads the plan and nothing else; at most one plan's words are taken together. */
proctype Reader() {
  byte e, groups_epoch, read_cuts, read_streams, boundary;
  for (boundary : 1 .. 2) {
again:
    e = plan_epoch;
    if
    :: e != groups_epoch ->
       if
       :: table_epoch[e % 2] == e -> read_cuts = cuts[e % 2]
       :: else -> goto again
       fi;
#ifndef NO_RECHECK
       if
       :: table_epoch[e % 2] == e
       :: else -> goto again
       fi;
#endif
       groups_epoch = e
    :: else
    fi;
    /* The stream, of the plan whose groups were read. */
    if
    :: table_epoch[groups_epoch % 2] == groups_epoch -> read_streams = streams[groups_epoch % 2]
    :: else -> goto again
    fi;
#ifndef NO_RECHECK
    if
    :: table_epoch[groups_epoch % 2] == groups_epoch
    :: else -> goto again
    fi;
#endif
    assert(read_cuts == read_streams)
  }
  finished++
}

inline take_signal(s) {
  if
#ifdef EARLY_REUSE
  :: s = w * SIGNALS
#endif
  :: complete(w * SIGNALS, begun[w * SIGNALS]) -> s = w * SIGNALS
  :: !complete(w * SIGNALS, begun[w * SIGNALS]) &&
     complete(w * SIGNALS + 1, begun[w * SIGNALS + 1]) -> s = w * SIGNALS + 1
  fi;
  begun[s]++
}

proctype Worker(byte w) {
  byte group, stream, next, use;
  byte last = 0, last_generation = 0;    /* of the last packet */
  byte before = 0, before_generation = 0;
  stream = w;
  ring[w * 2 + stream]!kernel(0, 0, 0, NONE, 0, 0);
  for (group : 1 .. GROUPS(w)) {
    /* One that runs and one behind it. */
    atomic { complete(before, before_generation);
      if
      :: next = stream
      :: next = 1 - stream;
#ifndef NO_MARK
         if
         :: last_generation == 0 ->
            take_signal(last);
            last_generation = begun[last];
            ring[w * 2 + stream]!barrier(0, NONE, 0, last, last_generation, 1)
         :: else
         fi;
#endif
#ifndef NO_BARRIER
         if
         :: !complete(last, last_generation) ->
            ring[w * 2 + next]!barrier(0, last, last_generation, NONE, 0, 0)
         :: else
         fi;
#endif
         stream = next
      fi;
      next = 0
    }
    atomic {
      take_signal(use);
      before = last; before_generation = last_generation;
      last = use; last_generation = begun[use];
      ring[w * 2 + stream]!kernel(group, NONE, 0, last, last_generation, group % 2 == 0);
      use = 0
    }
  }
  complete(last, last_generation);
  finished++
}

/* The first packet of each ring. */
bit has_head[4];
byte head_waits[4], head_generation[4], head_completes[4];

#ifdef NO_HOLD
#define not_held(r) true
#else
#define not_held(r) (head_waits[r] == NONE || forwarded[head_waits[r]] >= head_generation[r])
#endif
#ifdef NO_COUNT
#define not_waited_for(r) true
#else
#define not_waited_for(r) (head_completes[r] == NONE || barriers[head_completes[r]] == 0)
#endif
#ifdef KEEP_TURN
#define may_go(r) has_head[r]
#else
#define may_go(r) (has_head[r] && not_held(r) && not_waited_for(r))
#endif

/* eclipd: one ring. */
proctype Forward(byte w; byte s) {
  mtype type;
  byte number, generation;
  bit ends;
#define mine (w * 2 + s)
#define other ((1 - w) * 2 + s)
end:
  do
  :: atomic { ring[mine]?type, number, head_waits[mine], head_generation[mine], head_completes[mine],
                         generation, ends -> has_head[mine] = 1 };
end_held:
     atomic { not_held(mine) && not_waited_for(mine) && nfull(queue[s]) &&
              (turn[s] != 1 - w || !may_go(other)) ->
       if
       :: head_waits[mine] != NONE && forwarded[head_waits[mine]] == head_generation[mine] &&
          armed[head_waits[mine]] -> barriers[head_waits[mine]]++
       :: else -> head_waits[mine] = NONE
       fi;
       if
       :: head_completes[mine] != NONE ->
          assert(!armed[head_completes[mine]]);
          armed[head_completes[mine]] = 1;
          forwarded[head_completes[mine]] = generation
       :: else
       fi;
       queue[s]!type(w, number, head_waits[mine], head_completes[mine]);
       turn[s] = (ends -> NONE : w);
       has_head[mine] = 0; head_waits[mine] = 0; head_generation[mine] = 0; head_completes[mine] = 0;
       type = 0; number = 0; generation = 0; ends = 0 }
  od
}

/* The GPU: one queue. */
proctype Processor(byte s) {
  mtype type;
  byte w, number, waits, completes;
end:
  do
  :: atomic { queue[s]?type(w, number, waits, completes);
#ifndef NO_BARRIER_BIT
       !busy[s];
#endif
       if
       :: type == kernel ->
          assert(ran[w] == number); /* all before have ended */
          busy[s] = 1; whose[s] = w; signal_of[s] = completes
       :: else ->
          if
          :: waits != NONE -> !armed[waits]; barriers[waits]--
          :: else
          fi;
          if
          :: completes != NONE -> armed[completes] = 0
          :: else
          fi
       fi;
       w = 0; number = 0; waits = 0; completes = 0; type = 0 }
  od
}

proctype Units(byte s) {
end:
  do
  :: atomic { busy[s] ->
       busy[s] = 0;
       ran[whose[s]]++;
       if
       :: signal_of[s] != NONE -> armed[signal_of[s]] = 0
       :: else
       fi;
       whose[s] = 0; signal_of[s] = 0 }
  od
}

#ifdef NO_RECHECK
#define ONLY_PLAN
#endif

init {
  /* The plan's words and the order of packets have nothing in common but the stream, which is
   * anything; checked one after the other they are checked together. */
  if
  :: atomic {
       table_epoch[1] = 1; cuts[1] = 1; streams[1] = 1;
       run Planner(); run Reader() }
     atomic { timeout -> assert(finished == 2) }
#ifndef ONLY_PLAN
  :: atomic {
       run Worker(0); run Worker(1);
       run Forward(0, 0); run Forward(0, 1); run Forward(1, 0); run Forward(1, 1);
       run Processor(0); run Processor(1); run Units(0); run Units(1) }
     atomic {
       timeout ->
         assert(finished == 2);
         assert(ran[0] == GROUPS(0) + 1 && ran[1] == GROUPS(1) + 1) }
#endif
  fi
}
