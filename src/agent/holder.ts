// Who holds a session, and in what name somebody else may act on it. The host is one holder, whichever of its channels
// speaks. Inside the guest each connection is one, and no other program ends what it holds; root can, by name.
import { UsageError } from '../errors.js';
import type { ChannelContext, Client } from './origin.js';

/** As a channel's context. */
export type Holder = Pick<ChannelContext, 'origin' | 'client'>;

/**
 * holder     who began the session
 * successor  its connection has ended: whoever of its side knows the name of the session, or sends a plain thaw
 * root       root, for the session of another program
 */
export type Claim = 'holder' | 'successor' | 'root';

/** What `asker` is to a session of `holder`; undefined: it has no part in it. */
export function claimOf(holder: Holder, asker: Holder): Claim | undefined {
  if (holder.origin !== asker.origin) return undefined;
  if (holder.origin === 'host' || holder.client?.id === asker.client?.id) return 'holder';
  if (holder.client === undefined || holder.client.gone.aborted) return 'successor';
  return asker.client?.isRoot === true ? 'root' : undefined;
}

/** The connection that a session is to end with. Throws a UsageError if that is none whose end is told of. */
export function endingChannel({ client, name }: ChannelContext): Client['gone'] {
  if (client !== undefined) return client.gone;
  throw new UsageError(
    'E_USAGE',
    `ends-with-channel: expected a connection to a socket of this agent's inside the guest, found ${name}`,
  );
}
