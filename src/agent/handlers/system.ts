// Operating system, host name, clock. Sources as in qemu-ga: uname(2) and os-release(5).
import { readFile } from 'node:fs/promises';
import { hostname, machine, release, version } from 'node:os';
import { family } from './types.js';

const osReleaseFiles = ['/etc/os-release', '/usr/lib/os-release'] as const;

/** os-release's names and guest-get-osinfo's. */
const osReleaseMembers = {
  ID: 'id',
  NAME: 'name',
  PRETTY_NAME: 'pretty-name',
  VERSION: 'version',
  VERSION_ID: 'version-id',
  VARIANT: 'variant',
  VARIANT_ID: 'variant-id',
} as const;

type OsReleaseMember = (typeof osReleaseMembers)[keyof typeof osReleaseMembers];

/** @param osReleaseFile in place of the usual ones: qemu-ga's QGA_OS_RELEASE */
export function systemHandlers(osReleaseFile = process.env['QGA_OS_RELEASE']) {
  return family({
    async 'guest-get-osinfo'() {
      return {
        'kernel-release': release(),
        'kernel-version': version(),
        machine: machine(),
        ...parseOsRelease(await readFirst(osReleaseFile === undefined ? osReleaseFiles : [osReleaseFile])),
      };
    },
    'guest-get-host-name': () => ({ 'host-name': hostname() }),
    'guest-get-time': () => BigInt(Date.now()) * 1_000_000n,
  });
}

/** Reads shell assignments, values quoted or not. Other lines are passed over, as os-release(5) asks. */
export function parseOsRelease(text: string): Partial<Record<OsReleaseMember, string>> {
  const found: Partial<Record<OsReleaseMember, string>> = {};
  for (const line of text.split('\n')) {
    const [, key = '', value = ''] = /^([A-Z_]+)=(.*)$/.exec(line.trim()) ?? [];
    if (key in osReleaseMembers) found[osReleaseMembers[key as keyof typeof osReleaseMembers]] = unquote(value);
  }
  return found;
}

/**
 * As qemu-ga (ga_osrelease_replace_special): without quotes a value ends at a blank or `;`; between double quotes a
 * backslash before any of $ ' " \ ` goes. Single quotes, which qemu-ga leaves in, are a shell's.
 */
function unquote(value: string): string {
  if (value.startsWith("'")) return value.slice(1).replace(/'.*$/s, '');
  if (!value.startsWith('"')) return value.replace(/[ ;].*$/s, '');
  const [, quoted = ''] = /^"((?:\\.|[^"])*)/s.exec(value) ?? [];
  return quoted.replace(/\\([$'"\\`])/g, '$1');
}

async function readFirst(files: readonly string[]): Promise<string> {
  for (const file of files) {
    try {
      return await readFile(file, 'utf8');
    } catch {
      // The next file is tried. A guest without either has no such members.
    }
  }
  return '';
}
