// Asking the server: with the key if there is one, again when it is busy. An error has the `status` that was answered.

export class KeyMissing extends Error {}
let key = "";
export const useKey = given => { key = given; };

const pause = (milliseconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, milliseconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

export const ask = async (path, body, signal) => {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = body === undefined ? { headers, signal }
    : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  const many = body?.texts?.length > 1;  // of too many for its time (503) the same would be too many again
  for (let left = 20; ; left--) {
    const response = await fetch(path, options);
    if (response.ok) return response.json();
    const wait = Number(response.headers.get("Retry-After"));
    const { error = `The server answered ${response.status}.` } = await response.json().catch(() => ({}));
    if (response.status === 401) throw new KeyMissing(error);
    if (!wait || !left || (many && response.status === 503)) throw Object.assign(new Error(error), { status: response.status });
    await pause(1000 * wait, signal);
  }
};
