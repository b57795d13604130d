// Lists the programs of the guest that commands start, and the packages that have them: for the answer where one is
// missing, for --check-config and for the packages' dependencies.
import { basename } from 'node:path';

export interface Tool {
  /** A name looked for in the path, or an absolute path. */
  readonly program: string;
  /** As Debian calls it; RHEL's name is the same unless `rpm` says otherwise. */
  readonly package: string;
  readonly rpm?: string;
  readonly commands: readonly string[];
}

export const tools: readonly Tool[] = [
  { program: 'ip', package: 'iproute2', rpm: 'iproute', commands: ['guest-network-get-interfaces'] },
  { program: 'chpasswd', package: 'passwd', rpm: 'shadow-utils', commands: ['guest-set-user-password'] },
  // In util-linux itself before Debian 12.
  { program: '/sbin/hwclock', package: 'util-linux-extra', rpm: 'util-linux', commands: ['guest-set-time'] },
  { program: 'fstrim', package: 'util-linux', commands: ['guest-fstrim'] },
  {
    program: 'getent',
    package: 'libc-bin',
    rpm: 'glibc-common',
    commands: ['guest-ssh-get-authorized-keys', 'guest-ssh-add-authorized-keys', 'guest-ssh-remove-authorized-keys'],
  },
  { program: 'date', package: 'coreutils', commands: ['guest-get-timezone', 'guest-set-time'] },
  { program: 'mkfifo', package: 'coreutils', commands: ['guest-exec'] },
];

/** ` (package NAME)` for a program that is known, for messages. */
export function packageHint(program: string): string {
  const tool = tools.find((one) => basename(one.program) === basename(program));
  if (tool === undefined) return '';
  return ` (package ${tool.package}${tool.rpm === undefined ? '' : `, ${tool.rpm} on RHEL`})`;
}
