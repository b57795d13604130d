// An image: the files that guests are started from, and facts about what is installed in it. image.ts makes it.
import * as v from 'valibot';
import { KERNEL_VERSIONS } from './recipes.js';

export const GuestImage = v.strictObject({
  /** The name of the recipe. */
  name: v.string(),
  /** Names what is in it: recipe and builder. */
  key: v.string(),
  /** Differs from build to build: the same recipe may give other package versions tomorrow. */
  buildId: v.string(),
  directory: v.string(),
  /** The kernel that a QEMU guest boots. */
  kernel: v.string(),
  initrd: v.string(),
  /** The kernel that a user-mode guest boots if it is not told another. */
  userModeKernel: v.picklist(KERNEL_VERSIONS),
  /** Ports of a QEMU guest that are forwarded from the host's loopback. */
  ports: v.array(v.number()),
  /** It is installed, and off. */
  postgresql: v.strictObject({
    version: v.string(),
    /** The unit of its cluster. */
    unit: v.string(),
    /** Folder of its programs. */
    binaries: v.string(),
    /** Folder of its cluster. */
    data: v.string(),
  }),
  /** Never written after the build. The first one is the root disk. */
  disks: v.array(v.strictObject({ name: v.string(), file: v.string(), format: v.picklist(['qcow2', 'raw']) })),
});
export type GuestImage = v.InferOutput<typeof GuestImage>;

/** A line for a guest's shell: starts PostgreSQL and waits until it accepts connections. */
export function startPostgresLine({ postgresql: { unit, binaries } }: GuestImage): string {
  return `systemctl start ${unit} && until ${binaries}/pg_isready -q -h 127.0.0.1; do sleep 0.05; done`;
}
