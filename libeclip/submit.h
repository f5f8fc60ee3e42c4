// The last steps of a packet into its lease ring, the same for eclip_submit_... and the scheduler.
#pragma once

#include "libeclip/context.h"

namespace eclip {

/// Puts a packet, whose completion's use has been begun, into the ring, and wakes the forwarder if
/// it sleeps. `own_signal`: the use is the recorder's. 0; -EAGAIN when the ring is full and -ESTALE
/// when the lease has ended: nothing was submitted, and the use is taken back. Reports nothing.
int push_packet(eclip_lease& lease, const LeasePacket& packet, bool own_signal = false);

/// Gives a dispatch that is recorded and has no completion signal one of the recorder's. False:
/// there is none left.
bool add_recorders_signal(eclip_context& context, LeasePacket& packet);

/// Reports -ESTALE with what became of the lease.
int report_lease_end(const eclip_lease& lease);

/// 0 or -EINVAL with the field that is wrong; flags are not looked at.
int check(const eclip_dispatch& dispatch);

/// As it goes into the ring.
LeaseDispatch lease_dispatch(const eclip_dispatch& dispatch);

}  // namespace eclip
