const DETAIL_CHARACTERS = 500;

/** The text without space around it, and cut where it is too long for a detail of a verdict. */
export function clipped(text: string): string {
  const trimmed = text.trim();
  return trimmed.length <= DETAIL_CHARACTERS ? trimmed : `${trimmed.slice(0, DETAIL_CHARACTERS)}...`;
}
