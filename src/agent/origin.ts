// From which side a request comes, and on which channel.

/** The host, on its channel; or a program in the guest, on the local socket. */
export type Origin = 'host' | 'guest';

/** What is known of the peer on a channel. */
export interface ChannelContext {
  readonly origin: Origin;
  /** For logs and as requester, `virtio-serial /dev/...`. */
  readonly name: string;
}
