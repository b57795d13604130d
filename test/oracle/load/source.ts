// Where the load writes to. Shared with the program that runs in the guest: no imports here.

export interface Source {
  /** Its name in the log: no spaces. */
  readonly name: string;
  readonly driver: 'mysql' | 'postgresql' | 'redis' | 'sqlite';
  /** A unix socket, a port of the loopback, or a file. */
  readonly at: string;
  /** Where the driver knows tables. */
  readonly table: string;
}

/** Number of clients of each source: one operation of each is under way at a time. */
export const CLIENTS = 2;
