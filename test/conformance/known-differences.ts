// What differs from qemu-ga on purpose and no recorded exchange can show: what commands do when they are carried out,
// and what cannot be asked of a real agent here. For the lists of qga/README.md.
export const knownDifferences: {
  readonly wire: readonly string[];
  readonly commands: Readonly<Record<string, readonly string[]>>;
  readonly options: Readonly<Record<string, readonly string[]>>;
} = {
  wire: [
    'half a request does not outlive its connection',
    'a client that does not read its replies is cut off',
    'a sync is answered while a freeze is under way, whose late reply is never sent',
  ],
  commands: {
    'guest-info': ['the version is ours (`--report-version`); the commands are ours'],
    'guest-fsfreeze-freeze': ['ends by itself after 60 s (`lease-ms`); a hook that fails fails it'],
    'guest-fsfreeze-freeze-list': ['ends by itself after 60 s (`lease-ms`); a hook that fails fails it'],
    'guest-fsfreeze-thaw': ["thaws what was frozen by us, nobody else's; one error if the guest thawed itself before"],
    'guest-file-open': ['32 at once; for writing only where the policy allows guest-file-write'],
    'guest-file-read': ['what a pipe gave before it ran dry is not lost'],
    'guest-file-write': ['not buffered: what is written is in the file'],
    'guest-file-seek': ["positions beyond a filesystem's limit are accepted"],
    'guest-exec': ['16 at once, 64 MiB of output together; each in a session of its own'],
    'guest-exec-status': ['64 ended ones are kept'],
    'guest-fstrim': ['by fstrim(8), 10 min for each filesystem; without `minimum` in the result'],
    'guest-get-disks': ["no NVMe smart log; virtio's serial also without udev; sorted"],
    'guest-get-fsinfo': ['follows loop files and all disks of a btrfs; serials also without udev'],
    'guest-get-vcpus': ['sorted'],
    'guest-get-memory-blocks': ['sorted'],
    'guest-set-memory-blocks': ['a block without a state that shall be on is a success without error-code'],
    'guest-set-time': ['`Invalid time` without an accidental errno'],
    'guest-suspend-disk': ['an error where every way failed; qemu-ga may stay silent'],
    'guest-suspend-ram': ['an error where every way failed; qemu-ga may stay silent'],
    'guest-suspend-hybrid': ['an error where every way failed; qemu-ga may stay silent'],
    'guest-ssh-add-authorized-keys': ['not through links; no empty line in between; ends in a newline'],
    'guest-ssh-remove-authorized-keys': ['not through links; ends in a newline'],
  },
  options: {
    '-m': [
      '`none`: no host is served, only programs in the guest',
      '`vsock-listen` through socket activation alone (`fsfreeze-agent-vsock.socket`): Node has no AF_VSOCK',
      'on a vsock, to which every user of the guest can connect, the policy is `freeze-only` unless told otherwise',
    ],
    '-V': [],
    '-b': ['a name that no command has is told of in the log, if there is one: log file, journal or `-v`'],
    '-a': ['a name that no command has is told of in the log, if there is one: log file, journal or `-v`'],
    '-v': ['the lines are JSON'],
    '-l': ['what the host made the guest run, open or change is told there or in the journal, and not to syslog'],
    '-h': ['the text is ours, with our options'],
    '-F': ["without it the folders of the manual are used; QEMU's own dispatcher is replaced by its folder"],
    signals: [
      'while frozen all of them thaw first, however often they come; qemu-ga ignores SIGTERM and SIGINT, and of the others dies frozen',
    ],
    '--compat': ["whose wording: 10.2's or 7.2's"],
    '--report-version': ['what guest-info gives as version'],
    '--policy': ['what the host may ask for'],
    '--freezer': ['the freezer program'],
    '--local-socket': ['socket for programs inside the guest'],
    '--service': [
      "as our unit calls it: with the distribution's settings for qemu-ga, a watchdog, and exit code 78 where no start anew helps",
    ],
    '--check-config': ['what `--service` would use, ignore and refuse; exit 0, 1 or 78'],
    '--json': ['with `--check-config`: as one line of JSON'],
  },
};
