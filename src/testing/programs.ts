// The programs of this machine that the fixture runs, and the Debian packages that have them (vm-images/packages.json, which
// the set-up script reads, too). They are looked for before anything slow is begun.
import { accessSync, constants, readFileSync } from 'node:fs';
import path from 'node:path';
import * as v from 'valibot';
import { UsageError } from '../errors.js';
import { recipeFile } from './recipes.js';

const USES = {
  image: 'building a guest image',
  kernel: 'fetching a user-mode kernel',
  'user-mode': 'a user-mode guest',
  qemu: 'a guest in QEMU',
  probe: 'compiling a probe',
} as const;
/** A purpose that programs are needed for. */
export type Use = keyof typeof USES;

const Packages = v.array(
  v.strictObject({
    package: v.string(),
    /** Looked for in the search path, or at an absolute path. */
    programs: v.optional(v.array(v.string()), []),
    what: v.string(),
    /** Empty if only this project's own tests need it. */
    for: v.optional(v.array(v.picklist(Object.keys(USES) as Use[])), []),
    /** True if only a user who is not root needs it. */
    withoutRoot: v.optional(v.boolean(), false),
  }),
);
type Package = v.InferOutput<typeof Packages>[number];

/** PATH with the folders of system programs, which are not in that of an ordinary user. */
export function searchPath(): string {
  return [process.env['PATH'] ?? '', '/usr/sbin', '/sbin'].filter(Boolean).join(path.delimiter);
}

/** The packages needed for any of `uses` by this user. */
export function packagesFor(...uses: readonly Use[]): readonly Package[] {
  const packages = v.parse(Packages, JSON.parse(readFileSync(recipeFile('packages.json'), 'utf8')));
  const isRoot = process.getuid?.() === 0;
  return packages.filter((one) => one.for.some((use) => uses.includes(use)) && !(isRoot && one.withoutRoot));
}

/** True if `program`, a name or an absolute path, is on this machine. */
export function isProgramThere(program: string): boolean {
  if (path.isAbsolute(program)) return isAccessible(program, constants.R_OK);
  const folders = searchPath().split(path.delimiter).filter(Boolean);
  return folders.some((folder) => isAccessible(path.join(folder, program), constants.X_OK));
}

/** Throws UsageError `E_PROGRAMS`, with the packages to install, when this machine lacks what is needed for `uses`. */
export function requirePrograms(...uses: readonly Use[]): void {
  const lacking = packagesFor(...uses).flatMap((one) => {
    const programs = one.programs.filter((program) => !isProgramThere(program));
    return programs.length === 0 ? [] : [{ ...one, programs }];
  });
  if (lacking.length === 0) return;
  const purpose = uses.map((use) => USES[use]).join(', ');
  const found = lacking.map((one) => `${one.programs.join(', ')} (${one.package}: ${one.what})`).join('; ');
  const packages = lacking.map((one) => one.package);
  throw new UsageError(
    'E_PROGRAMS',
    `${purpose}: not on this machine: ${found}. As root: apt-get install --no-install-recommends ${packages.join(' ')}`,
    { facts: { packages, programs: lacking.flatMap(({ programs }) => programs) } },
  );
}

function isAccessible(file: string, mode: number): boolean {
  try {
    accessSync(file, mode);
    return true;
  } catch {
    return false;
  }
}
