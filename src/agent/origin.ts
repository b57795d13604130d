// From which side a request comes, on which channel, and of which client.

/** The host, on its channel; or a program in the guest, on one of the agent's sockets there. */
export type Origin = 'host' | 'guest';

/** One connection of a program in the guest. What it holds is its own. */
export interface Client {
  /** No other connection to this agent has it, or ever had. */
  readonly id: number;
  /** It is connected to the socket that is root's alone. */
  readonly isRoot: boolean;
  /** Aborted when it has ended its side of the connection, or is lost. */
  readonly gone: AbortSignal;
}

/** The peer on a channel, as far as it is known. */
export interface ChannelContext {
  readonly origin: Origin;
  /** For logs and as requester, `virtio-serial /dev/...`. */
  readonly name: string;
  /** Undefined for the host: whatever channel it uses, it is one holder. */
  readonly client?: Client;
}
