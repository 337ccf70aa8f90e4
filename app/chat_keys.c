/* chat_keys.c - what the keyboard and the mouse do to the chat.
 *
 * Keys of ours act here; everything else is the line's (ui/input.h), or the picture's while it
 * has the focus.                                                                           */
#include "app/chat_state.h"
#include "app/dropped.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

void chat_line(void *user, char *line) {
    chat *c = user;
    if (!line) {
        c->quit = true;
        return;
    }
    c->dirty = true;
    c->notice_until = 0; /* seen */
    if (!strcmp(line, "?"))
        c->popup = POPUP_HELP;
    else if (*line && !command_run(c, line))
        chat_ask(c, line);
    free(line);
}

static void move_view(chat *c, float dx, float dy, float zoom) {
    if (c->picture) /* as it is seen, not as it was wished for */
        c->view = ui_picture_view(c->picture);
    c->view.cx += dx / c->view.zoom;
    c->view.cy += dy / c->view.zoom;
    c->view.zoom *= zoom;
    ui_view_clamp(&c->view);
    chat_refresh_picture(c);
}

static void move_split(chat *c, int by) {
    int split =
        ui_layout_split_at(&c->layout, &c->want, c->layout.divider.y + by * c->layout.stacked,
                           c->layout.divider.x + by * !c->layout.stacked);
    c->want.split = split;
    chat_layout(c);
}

static void scroll_popup(chat *c, int by) {
    int top = c->popup_top + by;
    c->popup_top = top < 0 ? 0 : top < c->popup_most ? top : c->popup_most;
}

static void close_popup(chat *c) {
    c->popup = POPUP_NONE;
    c->popup_top = 0;
    c->generation++;
    c->emit = c->dirty = true;
}

/* Keys while the picture has the focus. False: not one of its keys. */
static bool picture_key(chat *c, const ui_event *e) {
    const float step = 0.1f;
    switch (e->key) {
    case UI_KEY_LEFT:
        move_view(c, -step, 0, 1);
        return true;
    case UI_KEY_RIGHT:
        move_view(c, step, 0, 1);
        return true;
    case UI_KEY_UP:
        move_view(c, 0, -step, 1);
        return true;
    case UI_KEY_DOWN:
        move_view(c, 0, step, 1);
        return true;
    }
    if (e->n != 1)
        return false;
    switch (*e->text) {
    case '+':
    case '=':
        move_view(c, 0, 0, 1.25f);
        return true;
    case '-':
        move_view(c, 0, 0, 0.8f);
        return true;
    case '0':
        c->view = UI_VIEW_FIT;
        chat_refresh_picture(c);
        return true;
    case '<':
        move_split(c, c->layout.stacked ? -1 : -2);
        return true;
    case '>':
        move_split(c, c->layout.stacked ? 1 : 2);
        return true;
    case 'c':
        command_run(c, "/crop");
        return true;
    case '\r':
        c->focus = false;
        return true;
    }
    return false;
}

/* The key that does the same by default. */
static int meaning(const chat *c, int key) {
    if (key < UI_KEY_F1 || key > UI_KEY_F6)
        return key;
    return UI_KEY_F1 + app_keymap_action(&c->o->keys, key - UI_KEY_F1 + 1);
}

/* The card while there is one, else the conversation. */
static void scroll(chat *c, int key) {
    int page = (c->popup ? c->popup_rows : c->layout.transcript.h) - 1;
    int by = key == UI_KEY_PAGE_UP ? -page : page;
    if (c->popup)
        scroll_popup(c, key == UI_KEY_CTRL_HOME  ? -c->popup_top
                        : key == UI_KEY_CTRL_END ? c->popup_most
                                                 : by);
    else if (key == UI_KEY_CTRL_HOME)
        ui_transcript_top(c->log);
    else if (key == UI_KEY_CTRL_END)
        ui_transcript_bottom(c->log);
    else
        ui_transcript_scroll(c->log, by);
}

static void on_key(chat *c, int key) {
    switch (key) {
    case UI_KEY_ESC:
        if (c->popup)
            close_popup(c);
        else if (c->busy)
            chat_stop(c, false);
        else if (c->focus)
            c->focus = false;
        break;
    case UI_KEY_CTRL_C:
        if (c->popup)
            close_popup(c);
        else if (c->busy || c->nwaiting)
            chat_stop(c, true);
        else if (!ui_input_cancel())
            chat_notice(c, "Ctrl-D or /quit leaves");
        break;
    case UI_KEY_CTRL_L:
        chat_redraw(c);
        break;
    case UI_KEY_CTRL_Z:
        ui_picture_hide(c->graphics);
        ui_term_suspend(&c->caps);
        chat_redraw(c);
        break;
    case UI_KEY_PAGE_UP:
    case UI_KEY_PAGE_DOWN:
    case UI_KEY_CTRL_HOME:
    case UI_KEY_CTRL_END:
        scroll(c, key);
        break;
    case UI_KEY_F1:
        if (c->popup)
            close_popup(c);
        else
            c->popup = POPUP_HELP;
        break;
    case UI_KEY_F2:
        c->want.picture = !c->want.picture;
        chat_layout(c);
        break;
    case UI_KEY_F3:
        c->overlay = !c->overlay;
        chat_notice(c, c->overlay ? "boxes are shown" : "boxes are hidden");
        chat_refresh_picture(c);
        break;
    case UI_KEY_F4:
        c->raw = !c->raw;
        ui_transcript_raw(c->log, c->raw);
        break;
    case UI_KEY_F5:
        command_run(c, "/copy");
        break;
    case UI_KEY_F6:
    case UI_KEY_SHIFT_TAB:
        c->focus = !c->focus && c->want.picture;
        break;
    }
}

static bool inside(ui_rect r, int y, int x) {
    return y >= r.y && y < r.y + r.h && x >= r.x && x < r.x + r.w;
}

static void on_mouse(chat *c, const ui_event *e) {
    int y = e->mouse.y, x = e->mouse.x;
    float px, py;
    bool on_image = c->picture && inside(c->layout.picture, y, x) &&
                    ui_picture_pixel(c->picture, y, x, &px, &py);
    switch (e->mouse.what) {
    case UI_MOUSE_WHEEL_UP:
    case UI_MOUSE_WHEEL_DOWN: {
        bool up = e->mouse.what == UI_MOUSE_WHEEL_UP;
        if (c->popup)
            scroll_popup(c, up ? -3 : 3);
        else if (inside(c->layout.picture, y, x))
            move_view(c, 0, 0, up ? 1.25f : 0.8f);
        else
            ui_transcript_scroll(c->log, up ? -3 : 3);
        break;
    }
    case UI_MOUSE_PRESS:
        if (e->mouse.button != 1 || c->popup)
            break;
        c->splitting = inside(c->layout.divider, y, x);
        c->dragging = on_image;
        if (on_image) {
            c->drag[0] = c->drag[2] = px;
            c->drag[1] = c->drag[3] = py;
        }
        break;
    case UI_MOUSE_MOVE:
        if (c->splitting) {
            c->want.split = ui_layout_split_at(&c->layout, &c->want, y, x);
            chat_layout(c);
        } else if (c->dragging && on_image) {
            c->drag[2] = px;
            c->drag[3] = py;
            chat_refresh_picture(c);
        }
        break;
    case UI_MOUSE_RELEASE:
        c->splitting = false;
        if (c->dragging) {
            c->dragging = false;
            float *d = c->drag;
            float x0 = d[0] < d[2] ? d[0] : d[2], x1 = d[0] < d[2] ? d[2] : d[0];
            float y0 = d[1] < d[3] ? d[1] : d[3], y1 = d[1] < d[3] ? d[3] : d[1];
            if (x1 - x0 >= 8 && y1 - y0 >= 8)
                chat_crop(c, x0, y0, x1, y1);
            else
                chat_refresh_picture(c);
        }
        break;
    }
}

/* --- events -------------------------------------------------------------------------------- */

static void on_paste(chat *c, const char *s, size_t n) {
    char path[PATH_MAX];
    if (!*ui_input_text() && dropped_path(s, n, dropped_is_picture, path, sizeof path))
        chat_open_image(c, path);
    else
        ui_input_paste(s, n);
}

void chat_event(chat *c, const ui_event *e) {
    c->dirty = true;
    switch (e->type) {
    case UI_EV_BYTES:
        if (c->popup && c->popup_most && (e->key == UI_KEY_UP || e->key == UI_KEY_DOWN)) {
            scroll_popup(c, e->key == UI_KEY_UP ? -1 : 1);
            break;
        }
        if (c->popup) {
            close_popup(c);
            break;
        }
        if (c->focus && picture_key(c, e))
            break;
        c->focus = false;
        ui_input_feed(e->text, e->n);
        break;
    case UI_EV_KEY:
        on_key(c, meaning(c, e->key));
        break;
    case UI_EV_MOUSE:
        on_mouse(c, e);
        break;
    case UI_EV_PASTE:
        on_paste(c, e->text, e->n);
        break;
    case UI_EV_REPLY:
    case UI_EV_FOCUS:
        break;
    }
}
