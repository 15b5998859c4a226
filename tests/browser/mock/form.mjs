/** Bodies of requests. */

export async function readAll(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

/** Parts of a multipart/form-data body. */
export function readForm(data, type) {
  const boundary = Buffer.from(`--${/boundary=("?)([^";]+)\1/.exec(type)[2]}`);
  const parts = [];
  let at = data.indexOf(boundary);
  while (at >= 0) {
    const next = data.indexOf(boundary, at + boundary.length);
    if (next < 0) break;
    const part = data.subarray(at + boundary.length + 2, next - 2);
    const split = part.indexOf('\r\n\r\n');
    const head = part.subarray(0, split).toString();
    parts.push({ name: /name="([^"]*)"/.exec(head)?.[1] ?? '', filename: /filename="([^"]*)"/.exec(head)?.[1], data: part.subarray(split + 4) });
    at = next;
  }
  return parts;
}
