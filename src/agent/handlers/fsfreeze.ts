// guest-fsfreeze-*, qemu-ga's freeze commands on the one freeze path. A plain freeze has a lease like any other. It
// counts as qemu-ga does: each FIFREEZE of its own that succeeds; EBUSY and EOPNOTSUPP are passed over.
import { defined } from '../../defined.js';
import type { LocalSession } from '../../freeze/options.js';
import type { ChannelContext } from '../origin.js';
import { family, type FreezeEnvironment } from './types.js';

export function fsfreezeHandlers({ coordinator, keeper, plainLeaseMs }: FreezeEnvironment) {
  const freeze = async (requester: string, context: ChannelContext, mountpoints?: readonly string[]) => {
    const session = await keeper.freeze(
      {
        requester: `${requester} on ${context.name}`,
        leaseMs: plainLeaseMs,
        require: 'plain',
        ...defined({ mountpoints }),
      },
      context,
    );
    return await countOrRelease(session);
  };
  return family({
    async 'guest-fsfreeze-status'() {
      const { state } = await coordinator.status();
      return state === 'frozen' || state === 'thawing' ? 'frozen' : 'thawed';
    },
    'guest-fsfreeze-freeze': (_args, context) => freeze('guest-fsfreeze-freeze', context),
    'guest-fsfreeze-freeze-list': ({ mountpoints }, context) =>
      freeze('guest-fsfreeze-freeze-list', context, mountpoints),
    'guest-fsfreeze-thaw': (_args, context) => keeper.thawPlain(context),
  });
}

// Writers are held until the thaw or the lease, even where nothing could be frozen: a guest on ZFS alone is cut now.
// Where nothing is held at all the session ends: qemu-ga's state is `thawed` then, and its client need not thaw.
async function countOrRelease(session: LocalSession): Promise<number> {
  const { frozenCount, holdsWriters } = session;
  if (frozenCount === 0 && !holdsWriters) await session.thaw();
  return frozenCount;
}
