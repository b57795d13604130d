// Takes io_uring out of a Node executable. libuv sets up a ring with each of its loops, before any JavaScript runs, and
// a kernel may not survive what is mapped then (User Mode Linux 6.12, 7.2: "Bad page map" at a fork, panic). Nothing
// outside the executable prevents it for the agent alone: in libuv 1.52 UV_USE_IO_URING speaks of the ring for file
// operations only, and a seccomp filter would be its writers' as well.
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';

/** Each calls io_uring_setup(2) once: the compiler has put the first of them into the two others. */
const callers = ['uv__io_uring_setup', 'uv__iou_init', 'uv__platform_loop_init'];
/** SYS_io_uring_setup becomes the first argument of syscall(3). */
const number = /\tmov +\$0x1a9,%edi$/;
/** Its address, and its five bytes. */
const call = /^ *([0-9a-f]+):\t(?:[0-9a-f]{2} ){5} *\tcall +[0-9a-f]+ <syscall@plt>/;
/** `or $-1,%rax; nop`, five bytes too: what syscall(3) returns where there is no io_uring. libuv asks for no errno. */
const failed = Buffer.from([0x48, 0x83, 0xc8, 0xff, 0x90]);

/**
 * Puts a failure in the place of every call of io_uring_setup(2): libuv does without rings then, as on a kernel without
 * io_uring. For x86-64, before the symbols are stripped.
 * @throws Error if the executable is not made as expected; it is unchanged then
 */
export function takeOutIoUring(executable) {
  const offsets = callers.map((name) => offsetOfCall(executable, name));
  const file = openSync(executable, 'r+');
  try {
    for (const offset of offsets) writeSync(file, failed, 0, failed.length, offset);
  } finally {
    closeSync(file);
  }
}

/** Where in the file the instruction lies by which this function calls io_uring_setup(2). */
function offsetOfCall(executable, name) {
  const code = disassemble(executable, name);
  const [, startAddress, startOffset] = /^([0-9a-f]+) <.*> \(File Offset: 0x([0-9a-f]+)\):$/m.exec(code) ?? [];
  const lines = code.split('\n');
  const numbers = lines.filter((line) => number.test(line));
  const next = lines.slice(lines.indexOf(numbers[0])).find((line) => line.includes('\tcall '));
  const [, address] = call.exec(next ?? '') ?? [];
  if (startAddress === undefined || numbers.length !== 1 || address === undefined) {
    throw new Error(`expected one call of io_uring_setup in ${name}, found ${code}`);
  }
  const hex = (digits) => Number.parseInt(digits, 16);
  return hex(address) - hex(startAddress) + hex(startOffset);
}

function disassemble(executable, name) {
  const { error, status, stdout, stderr } = spawnSync(
    'objdump',
    ['--wide', '--file-offsets', `--disassemble=${name}`, executable],
    { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } },
  );
  if (status !== 0) throw new Error(`objdump: ${error?.message ?? stderr}`, { cause: error });
  return stdout;
}
