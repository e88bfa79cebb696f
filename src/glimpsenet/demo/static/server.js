// Requests to the server: each one carries its picture; the answer is plain values or an error message.

async function readAnswer(response) {
  const text = await response.text();
  let values;
  try { values = JSON.parse(text); } catch { values = { error: text || response.statusText }; }
  if (!response.ok) throw new Error(values.error);
  return values;
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server is not responding: is `glimpsenet demo` still running?");
  }
  return response;
}

export const get = async (path) => readAnswer(await request(path));

export const getBlob = async (path) => {
  const response = await request(path);
  if (!response.ok) await readAnswer(response);
  return response.blob();
};

export const ask = async (run, what, question) => readAnswer(await request(`api/runs/${run}/${what}`, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(question),
}));

export const openPicture = async (run, blob) => (await readAnswer(await request(`api/runs/${run}/picture`, {
  method: "POST", headers: { "content-type": "application/octet-stream" }, body: blob,
}))).picture;

// One request at a time; of those waiting, only the newest is sent. A drag is followed as fast as the model runs, and
// the last answer is always for the last request.
export class Newest {
  constructor(work, tell) {
    this.work = work;
    this.tell = tell;
    this.waiting = null;
    this.busy = false;
  }

  async push(item) {
    this.waiting = item;
    if (this.busy) return;
    this.busy = true;
    while (this.waiting) {
      const next = this.waiting;
      this.waiting = null;
      try { await this.work(next); } catch (error) { this.tell(error); }
    }
    this.busy = false;
  }
}
