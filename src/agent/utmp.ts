// Reads utmp(5) as glibc writes it: records of 384 bytes where its times are 32 bits wide (x86 and most others), of 400
// where they are 64 (arm64).
interface Layout {
  readonly bytes: number;
  readonly seconds: number;
  readonly wide: boolean;
}

const USER_PROCESS = 7;
const NAME_AT = 44;
const NAME_BYTES = 32;
const short: Layout = { bytes: 384, seconds: 340, wide: false };
const wide: Layout = { bytes: 400, seconds: 344, wide: true };

export interface Login {
  readonly user: string;
  /** Seconds since 1970. */
  readonly 'login-time': number;
}

/** Each user once, in the order of the file, with the earliest login. */
export function loggedIn(utmp: Buffer, architecture: string = process.arch): Login[] {
  const { bytes, seconds, wide: isWide } = architecture === 'arm64' ? wide : short;
  const users = new Map<string, number>();
  for (let at = 0; at + bytes <= utmp.length; at += bytes) {
    const record = utmp.subarray(at, at + bytes);
    if (record.readInt16LE(0) !== USER_PROCESS) continue;
    const name = record.subarray(NAME_AT, NAME_AT + NAME_BYTES);
    const end = name.indexOf(0);
    const user = name.subarray(0, end < 0 ? undefined : end).toString('utf8');
    const whole = isWide ? Number(record.readBigInt64LE(seconds)) : record.readInt32LE(seconds);
    const micros = isWide ? Number(record.readBigInt64LE(seconds + 8)) : record.readInt32LE(seconds + 4);
    const time = whole + micros / 1_000_000;
    users.set(user, Math.min(time, users.get(user) ?? time));
  }
  return [...users].map(([user, time]) => ({ user, 'login-time': time }));
}
