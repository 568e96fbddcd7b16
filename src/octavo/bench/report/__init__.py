"""The HTML report: results as one page that works offline, and every plot as a file.

``files`` reads, ``run_section``, ``runs_section`` and ``rows_section`` say what stands on the page, ``parts`` is what a page is
made of, ``page`` puts it into ``page.html``. Only the template makes HTML, and it escapes all text: names and errors come from
servers.
"""
