// What kernels can do with a volume whose filesystem is frozen.

/** With 6.8 device-mapper suspends what FIFREEZE froze already; before, it refuses and leaves half a snapshot. */
const NESTED_FREEZES = { major: 6, minor: 8 } as const;

/** A frozen logical volume can be snapshot. `release` as uname(2) tells it. */
export function cutsUnderFreeze(release: string): boolean {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  return major > NESTED_FREEZES.major || (major === NESTED_FREEZES.major && minor >= NESTED_FREEZES.minor);
}
