// From which side a request comes, and on which channel.

/** The host, on its channel; or a program in the guest, on the local socket. */
export type Origin = 'host' | 'guest';

/** The peer on a channel, as far as it is known. */
export interface ChannelContext {
  readonly origin: Origin;
  /** For logs and as requester, `virtio-serial /dev/...`. */
  readonly name: string;
}
