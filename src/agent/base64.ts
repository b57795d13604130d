// Reads base64 as qemu-ga does: other characters are an error, but an incomplete last group is silently dropped (GLib).
import { refuse } from '../qga/server.js';

/** Throws a RemoteError with QEMU's text. */
export function decodeBase64(text: string): Buffer {
  if (!/^[A-Za-z0-9+/=\n]*$/.test(text)) refuse('Base64 data contains invalid characters');
  const digits = text.includes('\n') ? text.replaceAll('\n', '') : text;
  return Buffer.from(digits.slice(0, digits.length - (digits.length % 4)), 'base64');
}
